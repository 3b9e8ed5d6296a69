"""What a network costs on a device: predicted, or measured."""
