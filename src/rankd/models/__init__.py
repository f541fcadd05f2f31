"""Where a model is: folders, the hub, and the small model that ships with rankd."""
