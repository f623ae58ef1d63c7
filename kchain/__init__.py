"""kchain: chains of LoRA fine-tuning phases as Kaggle notebooks."""

__version__ = "0.1.0"
