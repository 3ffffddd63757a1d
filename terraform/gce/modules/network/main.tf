resource "google_compute_network" "site" {
  name                    = var.site
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"
}

resource "google_compute_subnetwork" "gateways" {
  name                     = "${var.site}-gateways"
  network                  = google_compute_network.site.id
  region                   = var.region
  ip_cidr_range            = var.gateways
  private_ip_google_access = true
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "${var.site}-nodes"
  network                  = google_compute_network.site.id
  region                   = var.region
  ip_cidr_range            = var.nodes
  private_ip_google_access = true
}

resource "google_compute_router" "site" {
  count = var.nat ? 1 : 0

  name    = var.site
  network = google_compute_network.site.id
  region  = var.region
}

resource "google_compute_router_nat" "site" {
  count = var.nat ? 1 : 0

  name                               = var.site
  router                             = google_compute_router.site[0].name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}
