package translate

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"
)

const nameListenerRate = "marchproxy.listener_rate_limit"

// filterListenerRate is the local rate limit of each listener's requests.
var filterListenerRate = &filter{
	name: nameListenerRate, holds: []proto.Message{&limitv3.LocalRateLimit{}}, before: asleep(),
	on: onGateway,
	content: func(c *chain) *Resource {
		content := asleep()
		if l := c.gw.GetLimits().GetLocalRateLimit(); l != nil {
			content = rateLimit("listener", l)
		}
		return extension(nameListenerRate, content, nil, c.ref())
	},
}

func rateLimit(prefix string, l *configv1.LocalRateLimit) *limitv3.LocalRateLimit {
	on := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
		Numerator:   100,
		Denominator: typev3.FractionalPercent_HUNDRED,
	}}
	return &limitv3.LocalRateLimit{
		StatPrefix: prefix, FilterEnabled: on, FilterEnforced: on,
		TokenBucket: &typev3.TokenBucket{
			MaxTokens: orNumber(l.GetBurst(), l.GetRequests()), TokensPerFill: wrapperspb.UInt32(l.GetRequests()),
			FillInterval: orElse(l.GetPer(), time.Second),
		},
		EnableXRatelimitHeaders: 1,
	}
}
