"""What tests of Shoal's engines run on: real clusters of several nodes on one machine, and images for them.

Nothing here is part of Shoal, and nothing here imports it. Root is needed, and Debian 12; see docs/testbed.md.
"""
