"""Meters, and the one protocol by which anything is measured."""
