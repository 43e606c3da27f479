package translate

import (
	"slices"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// kind is what the translator has to know of a kind of resource.
type kind struct {
	// changed has built again what a change affects.
	changed func(w *work, c config.Change)
	// alone is the part of the checks for which an object is all that has to be known.
	alone func(k *checker, o *resource.Object)
}

// kinds has every kind; a test looks for those that it lacks.
var kinds = map[string]kind{
	resource.KindIssuer:    issuerKind,
	resource.KindChallenge: challengeKind,
	resource.KindCertificate: {(*work).certificateChanged, func(k *checker, o *resource.Object) {
		k.certificate(o.Message().(*configv1.Certificate))
	}},
	resource.KindService: {(*work).serviceChanged, func(k *checker, o *resource.Object) {
		k.service(o.Name, o.Message().(*configv1.Service))
	}},
	resource.KindEndpointSet:   endpointSetKind,
	resource.KindLocalityDrain: localityDrainKind,
	resource.KindAuthPolicy: {(*work).policyChanged, func(k *checker, o *resource.Object) {
		k.authPolicy(o.Message().(*configv1.AuthPolicy))
		k.engine(o.Message().(*configv1.AuthPolicy))
	}},
	resource.KindLicense: {(*work).licenseChanged, func(k *checker, o *resource.Object) {
		k.license(o.Message().(*configv1.License))
	}},
	resource.KindGateway: {(*work).gatewayChanged, func(k *checker, o *resource.Object) {
		k.gateway(o.Name, o.Message().(*configv1.Gateway))
	}},
	resource.KindRoute: {(*work).routeChanged, func(k *checker, o *resource.Object) {
		k.route(o.Name, o.Message().(*configv1.Route))
	}},
	resource.KindRateLimit: {(*work).rateLimitChanged, func(k *checker, o *resource.Object) {
		k.limit(o.Name, o.Message().(*configv1.RateLimitPolicy))
	}},
}

// routeChanged has the hosts of a route built again.
func (w *work) routeChanged(c config.Change) {
	for o := range c.Objects {
		r := o.Message().(*configv1.Route)
		if slices.Contains(config.Gateways(r), w.gateway) {
			for _, h := range config.Hosts(r) {
				w.scopes[scopeHost(h)] = true
				w.noteWild(h)
			}
		}
	}
}

// certificateChanged has a certificate's secrets built again, and the clusters of the services that refer to it.
func (w *work) certificateChanged(c config.Change) {
	w.certs[c.Ref().Name] = true
	for _, u := range w.st.Users(c.Ref()) {
		if u.Kind == resource.KindService {
			w.services[u.Name] = true
		}
	}
}

// licenseChanged has the license's filter config built again.
func (w *work) licenseChanged(c config.Change) {
	if c.Ref().Name == w.gw.GetLicense() {
		w.stale |= onLicense
	}
}

// gatewayChanged has built again what depends on what changed in the gateway.
func (w *work) gatewayChanged(c config.Change) {
	if c.Ref().Name != w.gateway {
		return
	}
	w.listener = true
	w.stale |= onGateway
	if c.Before == nil || c.After == nil {
		w.stale = onAnything
		w.everyScope()
		return
	}
	was, now := c.Before.Message().(*configv1.Gateway), c.After.Message().(*configv1.Gateway)
	if was.GetLicense() != now.GetLicense() {
		w.stale |= onLicense
	}
	if was.GetAuthPolicy() != now.GetAuthPolicy() {
		w.stale |= onPolicies
	}
	if listenerNames(c.Before) != listenerNames(c.After) {
		w.everyScope()
	} else {
		w.reguard(was, now)
	}
}

// serviceChanged has a service's cluster built again, and the routes that depend on what it is.
func (w *work) serviceChanged(c config.Change) {
	w.services[c.Ref().Name] = true
	w.routesOfServiceChanged(c)
}

// routesOfServiceChanged has the routes of a service built again where they depend on what changed in it.
func (w *work) routesOfServiceChanged(c config.Change) {
	now := ""
	if c.After != nil {
		now = traitsOf(c.After.Message().(*configv1.Service))
	}
	name := c.Ref().Name
	was, known := w.traits[name]
	if now == "" {
		delete(w.traits, name)
	} else {
		w.traits[name] = now
	}
	if !known && now == "" || was == now {
		return
	}
	for _, u := range w.st.Users(c.Ref()) {
		if u.Kind != resource.KindRoute {
			continue
		}
		for _, h := range config.Hosts(w.st.Get(u).Message().(*configv1.Route)) {
			w.scopes[scopeHost(h)] = true
		}
	}
}

// policyChanged has the ECDS filter configs built again where a policy is in use, and the routes that name it where the
// policy changes what they hold.
func (w *work) policyChanged(c config.Change) {
	name := c.Ref().Name
	users := w.policies[name]
	if len(users) == 0 && name != w.gw.GetAuthPolicy() {
		return
	}
	w.stale |= onPolicies
	if w.routeForm(c.Before) != w.routeForm(c.After) {
		for k := range users {
			w.scopes[scopeOf(k.Name)] = true
		}
	}
}
