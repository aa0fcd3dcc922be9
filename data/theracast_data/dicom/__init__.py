"""Medical images, regions and doses on their way from the archive to the tables; nothing wrong gets through silently."""
