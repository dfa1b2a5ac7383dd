package cli

// maxTypos is the number of wrong, missing or surplus letters up to which a
// word is taken for a misspelling of another one.
const maxTypos = 3

// Nearest returns the candidate that word is most likely a misspelling of, or
// "" if it resembles none.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", maxTypos+1
	for _, c := range candidates {
		if len(word) > len(c)+maxTypos {
			continue
		}
		if d := distance(word, c); d < bestDistance && 2*d < len(c) {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with the next that
// makes a from b, in bytes: flags, commands and keys are ASCII.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			substitute := row[j]
			if a[i] != b[j] {
				substitute++
			}
			next[j+1] = min(substitute, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
