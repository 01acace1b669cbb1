"""Portrait4D and Portrait4D-v2: photo and driver -> animated tri-plane head (Deng et al., CVPR and ECCV 2024)."""
