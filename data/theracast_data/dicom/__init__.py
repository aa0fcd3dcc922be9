"""Medical images, regions and doses, read so that nothing wrong gets through silently.

`series` reads CT, MR and PET as one volume (`read_series`), `pet` as SUV (`read_suv`), `nifti` and `nrrd_file` the other formats;
`regions` reads a region of any format for an image (`read_region`), `dose` the dose that it received (`read_dose`, `region_dose`);
`phases` finds the volumes of a dynamic series (`phases_in_series`);
`manifest` lists what a folder holds (`scan_folder`). What is missing, doubled, mixed, askew or ambiguous is an `ImageError` that
names files, elements and the remedy; where a remedy is a choice, it is an argument, and what was chosen is a note of the result.

Warnings of pydicom are silenced while it reads, which touches settings of the whole process: read in processes, not in threads.
"""
