"""Boards: the real ssh client against a real sshd on this machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.backends.board import Board
from devices.backends.programs import PROGRAMS
from devices.backends.ssh import Ssh
from ofa.errors import UserError
from ofa.preprocessing import LITE0
from specialize.export.tflite import tflite_model
from tests.devices.phone import BENCHMARK
from tests.networks import labels_of, network
from tests.strategies import TINY

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or os.geteuid() != 0,
    reason="an ssh server, a client, and root are needed to start one",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A client's configuration that knows this machine as ``board``."""
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nBanner {folder}/banner\n"
    )
    (folder / "banner").write_text("authorized users only\n")
    host = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    (folder / "config").write_text(
        f"Host board\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\n"
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder}/known_hosts\n"
        f"Host stranger\nHostName 127.0.0.1\nPort {port}\nUserKnownHostsFile /dev/null\n"
        f"Host refused\nHostName 127.0.0.1\nPort {port}\nIdentityFile {folder}/host\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\n"
        "Host silent\nHostName 127.0.0.1\nPort 1\n"
        "Host *\nLogLevel ERROR\n"  # hides the banner, but for a command line that asks for it
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([str(SSHD), "-D", "-q", "-f", str(folder / "sshd_config")])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield folder / "config"
    server.terminate()
    server.wait()


@pytest.mark.slow
def test_a_board_runs_the_files(config: Path, tmp_path: Path) -> None:
    tool = tmp_path / "benchmark_model"
    tool.write_text(BENCHMARK)
    models = []
    for name, arch in (("small", TINY.smallest(24)), ("large", TINY.largest(40))):
        layers, folded = network(TINY, arch)
        models.append(tmp_path / f"{name}.tflite")
        models[-1].write_bytes(tflite_model(layers, folded, labels_of(layers), LITE0, name))
    board = Board(Ssh("board", ("-F", str(config))), PROGRAMS["tflite"], tool, threads=2)
    board.shell.folder = str(tmp_path / "there")
    small, large = board.measure(models)
    assert 0 < small.median_ms < large.median_ms
    assert (small.threads, board.runtime) == (2, "tflite")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("stranger", "its host key is not known"),
        ("refused", "it does not let us in"),
        ("silent", "nothing listens"),
    ],
)
def test_what_goes_wrong_is_said(config: Path, host: str, complaint: str) -> None:
    shell = Ssh(host, ("-F", str(config)))
    with pytest.raises(UserError, match=complaint) as caught:
        shell.run("true")
    assert caught.value.where == f"board {host}"
    assert "BatchMode" in str(caught.value.fix)


def test_a_command_that_fails_is_said(config: Path, tmp_path: Path) -> None:
    shell = Ssh("board", ("-F", str(config)))
    assert shell.run("echo a; echo b >&2").split() == ["a", "b"]
    with pytest.raises(UserError, match="failed with code 3: oh"):
        shell.run("echo oh; exit 3")
    with pytest.raises(UserError, match=r"failed with code 127: .*no-such-program: (command )?not"):
        shell.run("no-such-program")
    (tmp_path / "model").write_bytes(bytes(range(256)) * 1000)
    shell.push(tmp_path / "model", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "model").read_bytes()
    with pytest.raises(UserError, match="failed with code"):
        shell.push(tmp_path / "model", str(tmp_path / "absent" / "copy"))


def test_what_a_board_greets_with_is_not_its_name(config: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmark_model").touch()
    shells = [Ssh("board", ("-F", str(config), *more)) for more in ((), ("-o", "LogLevel=INFO"))]
    assert "authorized users only" in shells[1].run("true")
    quiet, chatty = (
        Board(shell, PROGRAMS["tflite"], tmp_path / "benchmark_model") for shell in shells
    )
    assert (quiet.device, quiet.system) == (chatty.device, chatty.system)
    assert quiet.device
