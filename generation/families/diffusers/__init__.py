"""Any text-to-image pipeline of diffusers."""
