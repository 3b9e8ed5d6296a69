"""Trained supernets, each a folder; ``ofa.checkpoint`` reads them."""
