package cli

// maxTypos is the number of wrong, missing or surplus letters up to which a
// word is taken for a misspelling of another one.
const maxTypos = 3

// Nearest returns the candidate that word is most likely a misspelling of, or
// "" if it resembles none.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", maxTypos+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance && 2*d < len(c) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b in bytes: flags and commands
// are ASCII.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
