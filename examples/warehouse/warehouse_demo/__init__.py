"""What `demo.py` is made of: traffic, the fleet as a user runs it, the screen, the verdict. No part of the fleet."""
