"""What the Slicer module does without Slicer."""
