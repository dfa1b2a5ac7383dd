package schema

import "path/filepath"

// Files returns what is made, by its path below the root of the module.
func Files(root string) (map[string][]byte, error) {
	docs, err := ReadDocs(root)
	if err != nil {
		return nil, err
	}
	text, err := JSON(docs)
	if err != nil {
		return nil, err
	}
	directory := filepath.Join("cmd", "muxserve")
	return map[string][]byte{
		filepath.Join(directory, "muxserve.schema.json"):  text,
		filepath.Join(directory, "muxserve.example.yaml"): Example(docs),
		filepath.Join(directory, "CONFIGURATION.md"):      Reference(docs),
	}, nil
}
