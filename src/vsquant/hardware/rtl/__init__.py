"""The RTL: SystemVerilog sources beside this file, and what makes a folder of them with a test bench."""
