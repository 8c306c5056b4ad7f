"""From an image file to pixels of the network's size and convention."""
