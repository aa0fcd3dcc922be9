"""A multimodal oncology cohort with known truth, as the files a hospital would have. No patient in it ever lived."""

from theracast_data.synthetic.export import export
from theracast_data.synthetic.generate import generate
from theracast_data.synthetic.images import write_images
from theracast_data.synthetic.truth import Driver, Truth

__all__ = ["Driver", "Truth", "export", "generate", "write_images"]
