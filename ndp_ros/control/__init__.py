"""The inverse controller omega: setpoints to commands."""
