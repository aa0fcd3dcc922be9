"""Medical images, regions and doses, read so that nothing wrong gets through silently."""
