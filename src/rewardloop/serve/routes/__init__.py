"""What can be asked, a file for each part of the interface."""
