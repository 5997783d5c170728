// Counts the words of one item. For each item Dunlin starts it with the item's name as first argument and the item's
// bytes on standard input. It is a plain program: nothing in it knows of Dunlin.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	name := "standard input"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(nil, 1<<20)
	scanner.Split(bufio.ScanWords)
	words := 0
	for scanner.Scan() {
		words++
	}
	if err := scanner.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "standard input:", err)
		os.Exit(1)
	}
	fmt.Println(words, name)
}
