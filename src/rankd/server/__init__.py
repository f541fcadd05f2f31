"""The HTTP server: the app, its middleware and the process around it."""
