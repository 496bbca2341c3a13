/*
 * A plugin for mosquitto 2.0 that plays an enhanced authentication (MQTT 5, section 4.12), so that the
 * client meets one that a broker of others carries out. The cryptography is a toy: whoever flips the bits
 * of KEY knows the secret.
 *
 *     client: its nonce                          CONNECT, or AUTH 0x19
 *     broker: a challenge                        AUTH 0x18
 *     client: the challenge, flipped             AUTH 0x18
 *     broker: the nonce, flipped                 CONNACK, or AUTH 0x00
 *
 * Method MUTUAL does so. Method LIAR accepts anything, and proves nothing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#define KEY 0x5A
#define SIZE 8

static mosquitto_plugin_id_t *plugin;
/* One exchange at a time is enough for the tests, which have one client per broker. */
static uint8_t nonce[SIZE];
static uint8_t challenge[SIZE];
static uint8_t count;

static int says(struct mosquitto_evt_extended_auth *event, const uint8_t *bytes, uint8_t flip)
{
	uint8_t *out = malloc(SIZE);

	if (out == NULL) {
		return MOSQ_ERR_NOMEM;
	}
	for (int i = 0; i < SIZE; i++) {
		out[i] = bytes[i] ^ flip;
	}
	event->data_out = out;
	event->data_out_len = SIZE;
	return MOSQ_ERR_SUCCESS;
}

static int start(int kind, void *data, void *user)
{
	struct mosquitto_evt_extended_auth *event = data;

	(void)kind;
	(void)user;
	if (strcmp(event->auth_method, "LIAR") == 0) {
		return MOSQ_ERR_SUCCESS;
	}
	if (strcmp(event->auth_method, "MUTUAL") != 0) {
		return MOSQ_ERR_NOT_SUPPORTED;
	}
	if (event->data_in_len != SIZE) {
		return MOSQ_ERR_AUTH;
	}
	memcpy(nonce, event->data_in, SIZE);
	memset(challenge, ++count, SIZE);
	return says(event, challenge, 0) == MOSQ_ERR_SUCCESS ? MOSQ_ERR_AUTH_CONTINUE : MOSQ_ERR_NOMEM;
}

static int proceed(int kind, void *data, void *user)
{
	struct mosquitto_evt_extended_auth *event = data;
	const uint8_t *answer = event->data_in;

	(void)kind;
	(void)user;
	if (event->data_in_len != SIZE) {
		return MOSQ_ERR_AUTH;
	}
	for (int i = 0; i < SIZE; i++) {
		if (answer[i] != (challenge[i] ^ KEY)) {
			return MOSQ_ERR_AUTH;
		}
	}
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "extauth: exchange %d is good", count);
	return says(event, nonce, KEY);
}

int mosquitto_plugin_version(int supported_count, const int *supported)
{
	for (int i = 0; i < supported_count; i++) {
		if (supported[i] == 5) {
			return 5;
		}
	}
	return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **user, struct mosquitto_opt *options,
			  int option_count)
{
	int result;

	(void)user;
	(void)options;
	(void)option_count;
	plugin = identifier;
	result = mosquitto_callback_register(plugin, MOSQ_EVT_EXT_AUTH_START, start, NULL, NULL);
	if (result != MOSQ_ERR_SUCCESS) {
		return result;
	}
	return mosquitto_callback_register(plugin, MOSQ_EVT_EXT_AUTH_CONTINUE, proceed, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *user, struct mosquitto_opt *options, int option_count)
{
	(void)user;
	(void)options;
	(void)option_count;
	mosquitto_callback_unregister(plugin, MOSQ_EVT_EXT_AUTH_START, start, NULL);
	return mosquitto_callback_unregister(plugin, MOSQ_EVT_EXT_AUTH_CONTINUE, proceed, NULL);
}
