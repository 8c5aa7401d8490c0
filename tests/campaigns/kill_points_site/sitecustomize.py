"""Installs the hooks of tests/campaigns/kill_points.py in every process that a command starts."""

from tests.campaigns.kill_points import install

install()
