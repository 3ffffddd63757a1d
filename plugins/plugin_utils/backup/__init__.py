# SPDX-License-Identifier: Apache-2.0
"""Backups of a site: one age file each, made of its folder and what its components hand over, kept in a folder, by SSH or in S3."""
