"""The small model that ships with rankd: a checkpoint folder; its card is README.md."""
