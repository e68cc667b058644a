#!/usr/bin/python3
"""Fills the commands of weirctl, which only weirctl's own table knows, into its man page.

usage: fill.py TEMPLATE WEIRCTL      the man page, to standard output
"""
import subprocess
import sys

template, weirctl = sys.argv[1:]
commands = subprocess.run([weirctl, "--commands=mdoc"], check=True, stdout=subprocess.PIPE, text=True).stdout
with open(template) as f:
    text = f.read()
if text.count("@COMMANDS@\n") != 1:
    sys.exit(f"{template}: not exactly one line @COMMANDS@")
print(text.replace("@COMMANDS@\n", commands), end="")
