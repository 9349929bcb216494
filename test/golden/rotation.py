"""Writes rotation.json: parity coefficients of the systematic rotation code by another road than ours.

Ours multiplies real 2x2 matrices with an LU inverse. Here the coefficient of parity row p and data row d is the Lagrange
basis polynomial of node d at node p (the k data nodes determine a polynomial of degree < k; its value at p is the sum of
its values at the data nodes times these), in plain complex arithmetic, with nothing but Python's standard library:
    python3 test/golden/rotation.py
"""
import cmath
import json
import math
import pathlib


def coefficients(k, r):
    n = k + r
    node = lambda i: cmath.exp(2j * math.pi * i / n)
    parity = [math.floor(m * n / r + 0.5) for m in range(r)]
    data = [i for i in range(n) if i not in parity]
    rows = []
    for p in parity:
        row = []
        for d in data:
            value = 1 + 0j
            for other in data:
                if other != d:
                    value *= (node(p) - node(other)) / (node(d) - node(other))
            row.append([value.real, value.imag])
        rows.append(row)
    return {"k": k, "r": r, "parity": rows}


cases = [coefficients(k, r) for k, r in [(1, 1), (2, 1), (2, 2), (3, 2), (4, 1), (4, 2), (5, 3), (8, 2), (8, 4), (16, 2), (32, 4)]]
pathlib.Path(__file__).with_name("rotation.json").write_text(json.dumps(cases) + "\n")
