package writer

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/clusterkey"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
)

// hasSecrets says whether a spec's kind has any.
func hasSecrets(spec proto.Message) bool {
	return len(resource.SecretFields(spec.ProtoReflect().Descriptor())) > 0
}

// prepare takes the secrets out of a spec before anything is stored, as the schema says: some are sealed, some hashed.
// What a write leaves out, because reads do not show it, is taken from the object before. Where all that is wrong is
// that secrets are missing, the spec is handed back with something in their place.
func (w *Writer) prepare(d Desired, before *resource.Object) (proto.Message, resource.Violations) {
	if d.Stored || !hasSecrets(d.Spec) {
		return d.Spec, nil
	}
	k := config.KindOf(d.Ref.Kind)
	in := config.SecretWrite{Spec: proto.Clone(d.Spec)}
	stored := map[string]resource.Secret{}
	if before != nil {
		in.Before = before.Message()
		for _, s := range resource.Secrets(in.Before) {
			stored[s.Field] = s
		}
		if d.KeepApart {
			keep(in.Spec, in.Before, k.Apart)
		}
	}
	was := func(field string) string {
		if s, has := stored[field]; has {
			return s.Get()
		}
		return ""
	}
	for _, s := range resource.Secrets(in.Spec) {
		switch s.Use {
		case configv1.Secret_SECRET_HASHED:
			hash(&in, s, was(s.Digest().Field))
		case configv1.Secret_SECRET_SEALED:
			w.open(&in, k, s, d.Ref, was(s.Field))
		}
	}
	if k.Secrets != nil {
		k.Secrets(&in)
	}
	wrong := in.Found.Under(d.SpecPath)
	if !in.OnlyMissing() {
		return nil, wrong
	}
	for _, s := range resource.Secrets(in.Spec) {
		if s.Use == configv1.Secret_SECRET_SEALED {
			s.Set(w.seal(s.Get(), was(s.Field), d.Ref, s.Field))
		}
	}
	return in.Spec, wrong
}

// keep takes a field of a spec from the one before.
func keep(spec, before proto.Message, field string) {
	f := spec.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field))
	only := before.ProtoReflect().New()
	if before.ProtoReflect().Has(f) {
		only.Set(f, before.ProtoReflect().Get(f))
	}
	proto.Merge(spec, only.Interface()) // of which it has nothing
}

// hash replaces a secret by its digest. Of one that is left out it is the one that is given, or stored.
func hash(in *config.SecretWrite, s resource.Secret, stored string) {
	digest := s.Digest()
	switch {
	case s.Get() != "":
		digest.Set(clusterkey.Sum(s.Get()))
		s.Set("")
	case digest.Get() == "":
		digest.Set(stored)
	}
	if digest.Get() != "" {
		return
	}
	at, where := s.Path, "none is stored"
	if s.Item != "" {
		at, where = s.Item, "none is stored under its name"
	}
	in.Missing(at, "has neither "+s.Member+" nor "+digest.Member+", and "+where+"; give one")
	digest.Set(clusterkey.Sum(config.Absent + s.Field)) // not that of another one
}

// open has a secret that is sealed open in the spec: the one that is given, or stored, or the environment's.
func (w *Writer) open(in *config.SecretWrite, k *config.Kind, s resource.Secret, ref resource.Ref, stored string) {
	can, needed := true, ""
	if k.Secret != nil {
		can, needed = k.Secret(s.Holder())
	}
	switch {
	case seal.Sealed(s.Get()):
		in.Fail(s.Path, "secret.sealed", "must be the secret itself, or absent to keep the stored one")
		s.Set("")
	case s.Get() != "" || !can:
	case stored != "":
		plain, err := w.box.Open(stored, ref.Kind, ref.Name, s.Field)
		if err != nil {
			in.Missing(s.Path, "is needed: the stored one cannot be opened ("+err.Error()+"); give it again")
			return
		}
		in.Keep(s, plain)
	case w.environment[ref.Kind+"."+s.Field] != "":
		s.Set(w.environment[ref.Kind+"."+s.Field])
	case needed != "":
		in.Missing(s.Path, "is missing"+needed)
	}
}

// Unseal opens a secret of an object that is stored.
func (w *Writer) Unseal(r resource.Ref, field, sealed string) (string, error) {
	return w.box.Open(sealed, r.Kind, r.Name, field)
}

// seal seals a secret. The same secret keeps its sealed form: sealing again would change bytes where
// nothing has changed. One that an older SECRET_KEY sealed is sealed anew, so that writing everything once
// more ends a rotation.
func (w *Writer) seal(secret, stored string, r resource.Ref, field string) string {
	if secret == "" {
		return ""
	}
	if was, err := w.box.Open(stored, r.Kind, r.Name, field); err == nil && was == secret && w.box.Current(stored) {
		return stored
	}
	return w.box.Seal(secret, r.Kind, r.Name, field)
}

// Public is a spec as readers see it: without what the schema says is a secret, sealed or hashed.
func Public(o *resource.Object) (*resource.Object, error) {
	shown := resource.Redacted(o.Message())
	if shown == o.Message() {
		return o, nil
	}
	out, err := resource.New(o.Ref(), shown)
	if err != nil {
		return nil, err
	}
	out.UID, out.Revision, out.Owner, out.Labels, out.CreatedAt, out.UpdatedAt = o.UID, o.Revision, o.Owner, o.Labels,
		o.CreatedAt, o.UpdatedAt
	return out, nil
}
