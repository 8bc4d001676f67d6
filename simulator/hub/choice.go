package hub

import (
	"fmt"
	"slices"
	"strings"
)

// Choice is a point on which the sources about IoT Hub contradict each other, or say nothing that could be held to. The first
// of its values is what a hub does that is told nothing.
type Choice struct {
	Name   string
	Values []string
	About  string // what the values mean, in Markdown
	Source string // who says what
}

// The names of the choices: see Choices.
const (
	SixthSubscription     = "sixth-subscription"
	SessionLifetime       = "session-lifetime"
	DeliveryQoS           = "delivery-qos"
	C2DBeforeSubscription = "c2d-before-subscription"
	C2DLockTimeout        = "c2d-lock-timeout"
	DeviceKeyForModules   = "device-key-for-modules"
	DisabledDevice        = "disabled-device"
	TokenEnd              = "token-end"
	OwnModules            = "own-modules"
	TwinArrays            = "twin-arrays"
	TwinReplace           = "twin-replace"
	ReplacedDesired       = "replaced-desired"
	MethodTimeout         = "method-timeout"
	UnnamedAggregate      = "unnamed-aggregate"
	ModuleAggregates      = "module-aggregates"
	BulkErrorCode         = "bulk-error-code"
	CertificateAuthMethod = "certificate-auth-method"
	C2DCleanSession       = "c2d-clean-session"
)

const (
	learnMQTT = `Microsoft Learn, "Communicate with an IoT hub using the MQTT protocol"`
	learnC2D  = `Microsoft Learn, "Send cloud-to-device messages from IoT Hub"`
	learnTwin = `Microsoft Learn, "Understand and use device twins in IoT Hub"`
)

var choices = []Choice{
	{SixthSubscription, []string{"close", "refuse", "allow"},
		"An MQTT 3.1.1 device subscribes to more than five filters: its connection ends, the SUBACK says 0x80, or it may.",
		learnMQTT + ", has the limit and not what happens beyond it"},
	{SessionLifetime, []string{"forever", "1h"},
		"How long subscriptions of an MQTT 3.1.1 session with CleanSession 0 are kept for a device that is away.",
		"azure-iot-sdk-java, issue 777: for a certain time"},
	{DeliveryQoS, []string{"0", "granted"},
		"With which QoS MQTT 3.1.1 carries desired properties, direct methods and answers about twins: 0, or what the subscription was granted.",
		"Captures of live hubs have 0; azure-iot-sdk-csharp, MqttIotHubAdapter.cs, takes 1"},
	{C2DBeforeSubscription, []string{"keep", "purge"},
		"Cloud-to-device messages that came before an MQTT 3.1.1 session subscribed to them wait for it, or are purged when it subscribes.",
		learnC2D + ": kept; azure-sdk-for-c, mqtt_state_machine.md: a device gets what is sent after it has subscribed"},
	{C2DCleanSession, []string{"keep", "purge"},
		"Cloud-to-device messages wait on when their device connects by MQTT 3.1.1 with CleanSession 1, or are purged.",
		learnC2D + ": kept; azure-sdk-for-c, mqtt_state_machine.md: removed"},
	{C2DLockTimeout, []string{"free", "count"},
		"A cloud-to-device message whose lock has run out is free again, or its delivery count rises, too, as if it had been abandoned.",
		learnC2D + ": free, in 2026; earlier editions: count"},
	{DeviceKeyForModules, []string{"refuse", "accept"},
		"A module connects with a token that is signed by a key of its device.",
		`Microsoft Learn, "Control access to IoT Hub by using shared access signatures", does not say`},
	{DisabledDevice, []string{"cut-modules", "keep-modules"},
		"A device is disabled: the connections that its modules have are ended, or go on. New ones are refused either way.",
		`Microsoft Learn, "Understand the identity registry in your IoT hub", does not say`},
	{TokenEnd, []string{"expiry", "10m"},
		"A connection whose token has run out is ended then, or ten minutes later.",
		`Microsoft Learn, "Troubleshoot Azure IoT Hub error codes": ended; "Control access to IoT Hub by using shared access signatures": with a grace of up to ten minutes, which azure-iot-sdk-csharp, issue 564, has seen`},
	{OwnModules, []string{"any", "edge"},
		"Which devices may manage their own modules with their own credential: any, or IoT Edge devices alone.",
		"Azure/iot-identity-service takes it for granted on any; no page says so"},
	{TwinArrays, []string{"accept", "refuse-in-modules", "refuse"},
		"Arrays in twins and in what configurations set.",
		learnTwin + `: allowed; "Understand and use module twins in IoT Hub": not; iot-edge-v1, issue 593: "arrays are not supported"`},
	{TwinReplace, []string{"empty", "keep"},
		"`PUT` of a twin without tags, or without desired properties, empties what it leaves out, or leaves it.",
		"github.com/mwalser/terraform-provider-iothub, CONCEPT.md: empties; " + learnTwin + " has replacing tags and replacing desired properties as two operations"},
	{ReplacedDesired, []string{"nulls", "document"},
		"What a device is told when its desired properties are replaced: all of them and null for those that are gone, or all of them.",
		learnTwin + ", does not say"},
	{MethodTimeout, []string{"300", "3600"},
		"The longest `responseTimeoutInSeconds` and `connectTimeoutInSeconds` of a direct method.",
		`Microsoft Learn, "Understand and invoke direct methods from IoT Hub": 300; editions before 2019: 3600`},
	{UnnamedAggregate, []string{"refuse", "number"},
		"`SELECT COUNT() FROM devices`, without `AS`, is refused, or the column is called `$1` (`$2` for a second one).",
		`Microsoft Learn, "IoT Hub query language for device and module twins, jobs, and message routing", names each`},
	{ModuleAggregates, []string{"accept", "refuse"},
		"`COUNT`, `AVG`, `SUM`, `MIN` and `MAX` over `devices.modules`. `GROUP BY` is for `devices` either way.",
		`Microsoft Learn, "Queries for IoT Hub device and module twins": module twins are asked as device twins are; "IoT Hub query language for device and module twins, jobs, and message routing": aggregates are of device twins`},
	{BulkErrorCode, []string{"name", "number"},
		"`errorCode` in the result of a bulk operation.",
		"Azure/azure-iot-hub-node, src/service.json: a name; github.com/amenzhinsky/iothub can read a number only"},
	{CertificateAuthMethod, []string{"x509", "x509Certificate"},
		"`type` in `iothub-connection-auth-method` of telemetry whose sender has shown a certificate; with the second one `issuer` is `external`, else `iothub`.",
		`Microsoft Learn, "Create and read IoT Hub messages", of 2018: x509 and iothub; output of az iot hub monitor-events in demos of Azure Sphere: x509Certificate and external`},
}

// Choices are the points on which the sources about IoT Hub differ, and what a hub can be told about each.
func Choices() []Choice {
	all := slices.Clone(choices)
	for i := range all {
		all[i].Values = slices.Clone(all[i].Values)
	}
	return all
}

// ParseChoices reads texts like "twin-arrays=refuse", for Options.Choices.
func ParseChoices(texts []string) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("choice %q: want NAME=VALUE", text)
		}
		if other, twice := all[name]; twice && other != value {
			return nil, fmt.Errorf("choice %s is both %s and %s", name, other, value)
		}
		all[name] = value
	}
	return all, CheckChoices(all)
}

// CheckChoices tells whether there are such choices, by name, and such values.
func CheckChoices(all map[string]string) error {
	for name, value := range all {
		i := slices.IndexFunc(choices, func(c Choice) bool { return c.Name == name })
		if i < 0 {
			names := make([]string, 0, len(choices))
			for _, c := range choices {
				names = append(names, c.Name)
			}
			return fmt.Errorf("there is no choice %q; there are %s", name, strings.Join(names, ", "))
		}
		if !slices.Contains(choices[i].Values, value) {
			return fmt.Errorf("choice %s can't be %q; it is one of %s", name, value, strings.Join(choices[i].Values, ", "))
		}
	}
	return nil
}

// Chose tells whether the hub was told to do so. What it does untold, it was not told. Choices never change, so this
// needs no lock.
func (h *Hub) Chose(name, value string) bool { return h.choices[name] == value }

// checkArrays refuses arrays where the hub was told to.
func (h *Hub) checkArrays(where string, tree map[string]any, module bool) *Error {
	if !h.Chose(TwinArrays, "refuse") && !(module && h.Chose(TwinArrays, "refuse-in-modules")) {
		return nil
	}
	if hasArray(tree) {
		return argument("%s: arrays are not supported", where)
	}
	return nil
}

func hasArray(v any) bool {
	switch v := v.(type) {
	case []any:
		return true
	case map[string]any:
		for _, below := range v {
			if hasArray(below) {
				return true
			}
		}
	}
	return false
}
