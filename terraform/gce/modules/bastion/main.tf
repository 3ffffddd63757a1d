resource "google_compute_address" "bastion" {
  name         = "${var.site}-bastion"
  region       = var.region
  address_type = "EXTERNAL"
}

resource "google_compute_instance" "bastion" {
  name                      = "${var.site}-bastion"
  machine_type              = var.size
  zone                      = var.zone
  tags                      = var.tags
  can_ip_forward            = false
  labels                    = { ashlar_site = "${var.site}-bastion" } # none of the site's nodes, which are found by their site
  allow_stopping_for_update = true
  deletion_protection       = false

  boot_disk {
    auto_delete       = true
    kms_key_self_link = var.kms_key

    initialize_params {
      image = var.image
      size  = 10
      type  = "pd-balanced"
    }
  }

  network_interface {
    subnetwork = var.subnetwork

    access_config {
      nat_ip = google_compute_address.bastion.address
    }
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  metadata = {
    ssh-keys               = "${var.user}:${var.public_key}"
    user-data              = var.user_data
    block-project-ssh-keys = "true"
    enable-oslogin         = "false"
    serial-port-enable     = "false"
  }

  lifecycle {
    ignore_changes = [boot_disk, zone]
  }
}
