"""Tests of what the service answers."""

import unittest

from greeting import answer, slices


class Greeting(unittest.TestCase):
    def test_whoever_the_path_names_is_greeted(self):
        headers = {"content-type": "text/plain; charset=utf-8"}
        for method in ("GET", "HEAD"):
            self.assertEqual(answer(method, "/ada?loud"), (200, headers, "good day, ada\n"))
            self.assertEqual(answer(method, "/"), (200, headers, "good day, world\n"))

    def test_nothing_is_taken(self):
        status, headers, _ = answer("POST", "/ada")
        self.assertEqual((status, headers["allow"]), (405, "GET, HEAD"))

    def test_a_long_answer_is_cut_into_what_the_host_takes(self):
        for length, count in ((0, 0), (4096, 1), (4097, 2), (10_000, 3)):
            body = bytes(index % 251 for index in range(length))
            cut = list(slices(body))
            self.assertEqual(b"".join(cut), body)
            self.assertEqual(len(cut), count)
            self.assertTrue(all(0 < len(piece) <= 4096 for piece in cut))


if __name__ == "__main__":
    unittest.main()
