"""What a network is, and how the shared weights of a supernet are trained."""
