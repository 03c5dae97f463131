"""Training the network on worlds that are rendered here: data, losses, the loop."""
