"""The networks, their registry, and the card that describes a trained model."""
