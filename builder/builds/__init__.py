"""A build from plan to finished release; several builds on one cluster."""
