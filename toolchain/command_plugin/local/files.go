package local

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/gobwas/glob"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
)

// collect makes assets and archive from the files that the command left in `directory`.
func (state *CommandOutputs) collect(directory string) error {
	if state.AssetPaths != nil {
		assets, err := find(directory, *state.AssetPaths)
		if err != nil {
			return err
		}
		state.Assets = &assets
	}
	if state.ArchivePaths != nil {
		files, err := find(directory, *state.ArchivePaths)
		if err != nil {
			return err
		}
		contents := map[string]any{}
		for name, asset := range files {
			contents[name] = asset
		}
		if state.Archive, err = resource.NewAssetArchive(contents); err != nil {
			return err
		}
	}
	return nil
}

type rule struct {
	glob.Glob
	exclude bool
}

// find returns the files below `directory` that the rules name. The last rule that matches a file decides.
func find(directory string, patterns []string) (map[string]*resource.Asset, error) {
	rules := make([]rule, len(patterns))
	for i, pattern := range patterns {
		include, exclude := strings.CutPrefix(pattern, "!")
		compiled, err := glob.Compile(include, '/')
		if err != nil {
			return nil, err
		}
		rules[i] = rule{compiled, exclude}
	}
	found := map[string]*resource.Asset{}
	err := fs.WalkDir(os.DirFS(directory), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		wanted := false
		for _, rule := range rules {
			if rule.Match(name) {
				wanted = !rule.exclude
			}
		}
		if wanted {
			found[name], err = resource.NewPathAsset(path.Join(directory, name))
		}
		return err
	})
	return found, err
}
