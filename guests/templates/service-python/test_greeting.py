"""Tests of what the service answers."""

import unittest

from greeting import answer


class Greeting(unittest.TestCase):
    def test_whoever_the_path_names_is_greeted(self):
        self.assertEqual(answer(True, "/ada?loud"), (200, "good day, ada\n"))
        self.assertEqual(answer(True, "/"), (200, "good day, world\n"))

    def test_nothing_is_taken(self):
        self.assertEqual(answer(False, "/ada")[0], 405)


if __name__ == "__main__":
    unittest.main()
