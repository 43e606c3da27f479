package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// kindOf finds a kind by what people call it: Route, routes, auth-policy, authpolicies, or as few letters
// as suffice.
func kindOf(word string) (resource.Kind, error) {
	word = fold(word)
	var begins []resource.Kind
	for _, k := range resource.Kinds {
		for _, name := range []string{k.Name, k.Path, k.Token} {
			if fold(name) == word {
				return k, nil
			}
		}
		if word != "" && (strings.HasPrefix(fold(k.Path), word) || strings.HasPrefix(fold(k.Name), word)) {
			begins = append(begins, k)
		}
	}
	// The kind that the others are called after: cert is a certificate, not the issuer of one.
	for _, k := range begins {
		if !slices.ContainsFunc(begins, func(o resource.Kind) bool { return !strings.HasPrefix(o.Name, k.Name) }) {
			return k, nil
		}
	}
	switch len(begins) {
	case 0:
		return resource.Kind{}, fmt.Errorf("there is no kind %q; kinds: %s", word, strings.Join(paths(), ", "))
	default:
		return resource.Kind{}, fmt.Errorf("%q may be %s or %s; write more of it", word, begins[0].Path, begins[1].Path)
	}
}

func fold(s string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s)) }

// kindsOf is kindOf for a list, and every kind of what somebody wants for none.
func kindsOf(words []string) ([]resource.Kind, error) {
	if len(words) == 0 {
		return slices.DeleteFunc(slices.Clone(resource.Kinds),
			func(k resource.Kind) bool { return config.KindOf(k.Name).Found }), nil
	}
	var out []resource.Kind
	for _, w := range words {
		k, err := kindOf(w)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func paths() []string {
	out := make([]string, len(resource.Kinds))
	for i, k := range resource.Kinds {
		out[i] = k.Path
	}
	slices.Sort(out)
	return out
}

// ref reads KIND NAME or KIND/NAME.
func refs(args []string) (resource.Kind, []string, error) {
	if kind, name, ok := strings.Cut(args[0], "/"); ok {
		if len(args) > 1 {
			return resource.Kind{}, nil, fmt.Errorf("%s names kind and name already; write KIND NAME... for several", args[0])
		}
		args = []string{kind, name}
	}
	k, err := kindOf(args[0])
	return k, args[1:], err
}

// completeKinds completes a kind, then names of that kind.
func (c *cli) completeKinds(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return paths(), cobra.ShellCompDirectiveNoFileComp
	}
	k, err := kindOf(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a, err := c.api()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	objects, _, _, err := a.List(cmd.Context(), k.Path, map[string][]string{"q": {toComplete}})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, o := range objects {
		if !slices.Contains(args[1:], o.Name) {
			names = append(names, o.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
