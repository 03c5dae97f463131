"""The way to the adjuster's process and back."""
