# A regional passthrough load balancer: packets arrive with the client's address, so the nodes' own rules say who may come.

resource "google_compute_address" "front" {
  name         = var.name
  region       = var.region
  address_type = "EXTERNAL"
}

resource "google_compute_region_health_check" "port" {
  name               = var.name
  region             = var.region
  check_interval_sec = 5
  timeout_sec        = 5

  tcp_health_check {
    port = var.ports[length(var.ports) - 1]
  }
}

resource "google_compute_network_endpoint_group" "zone" {
  for_each = toset(var.zones)

  name                  = "${var.name}-${each.key}"
  zone                  = each.key
  network               = var.network
  subnetwork            = var.subnetwork
  network_endpoint_type = "GCE_VM_IP"
}

resource "google_compute_network_endpoint" "node" {
  for_each = var.nodes

  network_endpoint_group = google_compute_network_endpoint_group.zone[each.value.zone].name
  zone                   = each.value.zone
  instance               = each.value.instance
  ip_address             = each.value.private_ip
}

resource "google_compute_region_backend_service" "nodes" {
  name                            = var.name
  region                          = var.region
  protocol                        = "TCP"
  load_balancing_scheme           = "EXTERNAL"
  health_checks                   = [google_compute_region_health_check.port.id]
  connection_draining_timeout_sec = 30

  dynamic "backend" {
    for_each = google_compute_network_endpoint_group.zone

    content {
      group          = backend.value.id
      balancing_mode = "CONNECTION"
    }
  }
}

resource "google_compute_forwarding_rule" "front" {
  name                  = var.name
  region                = var.region
  load_balancing_scheme = "EXTERNAL"
  ip_address            = google_compute_address.front.address
  ip_protocol           = "TCP"
  ports                 = [for port in var.ports : tostring(port)]
  backend_service       = google_compute_region_backend_service.nodes.id
}
