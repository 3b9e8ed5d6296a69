"""Runtimes that measure and run a model file, under the one contract of ``devices.measure``."""
