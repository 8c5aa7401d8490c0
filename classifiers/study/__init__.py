"""Studies: releases, trainings, comparisons and their report."""
