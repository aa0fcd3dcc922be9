"""What is measured in images and regions: sizes, uptake, maps, texture, and how stable each measure is."""
