"""GenHead: Portrait4D's part-wise generator of 4D heads (Deng et al., CVPR 2024, section 3.1)."""
