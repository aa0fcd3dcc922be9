"""DICOM: images and regions, on their way from the archive to the tables."""
