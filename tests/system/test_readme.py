"""The README's examples, in Python and in C, as they stand there: run against a store of their own."""

import contextlib
import io
import os
import re
import subprocess
import unittest
from pathlib import Path

from cluster import PATIENCE, ClusterCase

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FOLDER = "/var/tmp/agents"  # the store of the examples
TEA = "tea, not coffee"
PROGRAM = """
#include "clients/c/mneme.h"
#include <err.h>
#include <stdio.h>
int main(void)
{
    static const float vector[%d] = {1}, query[%d] = {1};
    %s
    return 0;
}
"""


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class Examples(ClusterCase):
    dim = int(re.search(rf"mnemed --dir {FOLDER} --dim (\d+)", README)[1])

    def here(self, text):
        self.assertIn(FOLDER, text)
        return text.replace(FOLDER, str(self.cluster.dir))

    def test_python(self):
        """With mneme.open, mneme.attach and pyzmq alone, one after the other, as a reader would go through them."""
        said = io.StringIO()
        names = {"embedding": [1.0] * self.dim, "query": [1.0] * self.dim}
        texts = examples("python")
        self.assertGreaterEqual(len(texts), 3)
        with contextlib.redirect_stdout(said):
            for text in texts:
                exec(compile(self.here(text), "README.md", "exec"), names)
        self.assertIn("ada likes her tea without sugar", said.getvalue())
        self.assertIn(TEA, said.getvalue())
        self.assertNotIn("'ok': False", said.getvalue())

    def test_c(self):
        """With the client and attached, in one program that is compiled without a warning."""
        texts = examples("c")
        self.assertGreaterEqual(len(texts), 2)
        source, program = self.cluster.base / "readme.c", self.cluster.base / "readme"
        blocks = "".join(f"{{\n{self.here(text)}}}\n" for text in texts)
        source.write_text(PROGRAM % (self.dim, self.dim, blocks))
        library = Path(os.environ["MNEME_LIBRARY"])
        subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}", str(source), str(library),
                        f"-Wl,-rpath,{library.parent},--allow-shlib-undefined", "-o", str(program)], check=True,
                       timeout=60 * PATIENCE)
        done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60 * PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.assertGreaterEqual(done.stdout.count(TEA), 2, done.stdout)


if __name__ == "__main__":
    unittest.main()
