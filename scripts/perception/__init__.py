"""Parts of scripts/train_perception.py."""
