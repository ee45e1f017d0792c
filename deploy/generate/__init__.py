"""Generates the dashboards and the PrometheusRule, which are checked in."""
